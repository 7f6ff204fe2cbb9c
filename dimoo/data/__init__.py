"""Where examples come from: the built-in world (`dimoo.data.world`), a folder, a file of JSON lines, shards.

Importing this costs no torch.
"""

from dimoo.data.example import BadRow, Example, Source
from dimoo.data.folder import FolderSource
from dimoo.data.jsonl import JsonlSource
from dimoo.data.shards import ShardSource

__all__ = ["BadRow", "Example", "FolderSource", "JsonlSource", "ShardSource", "Source"]
