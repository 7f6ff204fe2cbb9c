"""The names of the task families, by which prompt templates keep their system prompts. Free of torch."""

from __future__ import annotations

TEXT_TO_IMAGE = "text_to_image"
UNDERSTANDING = "understanding"
"""Questions and captions, on one or several pictures, or none."""
EDITING = "editing"
"""Add, remove, replace, retouch by an instruction."""
DENSE = "dense"
"""A map of a picture: edges, depth, normals, poses, masks."""
CONTROL = "control"
"""A picture from words and such a map."""
SUBJECT = "subject"
"""A picture from words and a picture of an object."""
MULTI_VIEW = "multi_view"
"""Another view of an object."""
STYLE = "style"
"""A picture in the style of another one."""
OTHER = "other"
"""A picture from words and pictures that no other family names."""
FAMILIES = (TEXT_TO_IMAGE, UNDERSTANDING, EDITING, DENSE, CONTROL, SUBJECT, MULTI_VIEW, STYLE, OTHER)
"""All of them."""
