"""Surgery: silence that holds, and removal that changes nothing else."""

from dpap.surgery.compact import CompactReport
from dpap.surgery.living import Living
from dpap.surgery.silence import Silence
from dpap.surgery.storage import load, save
from dpap.surgery.witness import CompactionError

__all__ = ["CompactReport", "CompactionError", "Living", "Silence", "load", "save"]
