"""How often a recipe of the world meets each of its tasks, or single kinds of them. Free of torch."""

from __future__ import annotations

ALL_TASKS: dict[str, float] = {
    "picture": 0.3,
    "inpaint": 0.06,
    "edit": 0.16,
    "subject": 0.08,
    "style": 0.05,
    "restyle": 0.05,
    "control": 0.09,
    "predict": 0.07,
    "view": 0.04,
    "compare": 0.05,
    "chat": 0.03,
    "illustrate": 0.02,
}
"""At first."""
MORE_TASKS: dict[str, float] = ALL_TASKS | {
    "picture": 0.24,
    "inpaint": 0.05,
    "edit": 0.17,
    "subject": 0.09,
    "style": 0.06,
    "restyle": 0.07,
    "predict": 0.08,
    "view": 0.05,
}
"""Once the model copies what an edit keeps."""
MAP_TASKS: dict[str, float] = ALL_TASKS | {
    "picture": 0.15,
    "inpaint": 0.04,
    "edit": 0.15,
    "style": 0.09,
    "restyle": 0.12,
    "control": 0.07,
    "predict": 0.15,
    "view": 0.06,
    "compare": 0.04,
}
"""In between: what a style or a map makes of each patch takes longest to learn."""
REFINED_TASKS: dict[str, float] = {
    "picture": 0.32,
    "inpaint": 0.03,
    "edit_add": 0.09,
    "edit_remove": 0.02,
    "edit_replace": 0.03,
    "edit_move": 0.03,
    "edit_recolor": 0.02,
    "subject_one": 0.03,
    "subject_two": 0.05,
    "style": 0.05,
    "restyle": 0.07,
    "control": 0.04,
    "predict": 0.06,
    "view": 0.06,
    "compare": 0.03,
    "compare_which": 0.02,
    "chat": 0.02,
    "illustrate_one": 0.01,
    "illustrate_two": 0.03,
}
"""Plain pictures again, and the kinds that it had not learnt."""
POLISHED_TASKS: dict[str, float] = {
    "picture": 0.42,
    "inpaint": 0.02,
    "edit": 0.08,
    "edit_add": 0.04,
    "subject_one": 0.02,
    "subject_two": 0.05,
    "style": 0.1,
    "restyle": 0.14,
    "control": 0.02,
    "predict": 0.04,
    "view_mirrored": 0.03,
    "view_rotated": 0.06,
    "compare": 0.02,
    "compare_which": 0.05,
    "chat": 0.01,
    "illustrate_one": 0.01,
    "illustrate_two": 0.04,
}
"""After that: styles and what else it had not learnt, and more of plain pictures, which had suffered."""
FINISHING_TASKS: dict[str, float] = {
    "picture": 0.35,
    "inpaint": 0.02,
    "edit": 0.06,
    "edit_add": 0.02,
    "subject_one": 0.02,
    "subject_two": 0.02,
    "style": 0.04,
    "restyle": 0.05,
    "restyle_inverted": 0.03,
    "control": 0.02,
    "predict": 0.02,
    "view_mirrored": 0.06,
    "view_rotated": 0.05,
    "compare": 0.12,
    "chat": 0.04,
    "illustrate_one": 0.02,
    "illustrate_two": 0.06,
}
"""After `sft`: pairs compared, turned views, chat and words with pictures about twice as often, most others less."""
QUESTION_TASKS: dict[str, float] = {
    "picture": 0.46,
    "inpaint": 0.02,
    "edit": 0.06,
    "edit_add": 0.02,
    "edit_remove": 0.03,
    "subject": 0.04,
    "style": 0.04,
    "restyle": 0.05,
    "restyle_outlined": 0.02,
    "control": 0.02,
    "predict": 0.03,
    "view_mirrored": 0.03,
    "compare": 0.08,
    "compare_which": 0.03,
    "chat": 0.03,
    "illustrate_one": 0.01,
    "illustrate_two": 0.03,
}
"""In the end: words about pictures, half of what plain pictures are shown for, and pairs still."""
