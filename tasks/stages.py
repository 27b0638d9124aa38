"""All stages in the order in which the flow runs them."""

from tasks.clean import STAGE as CLEAN
from tasks.collect import STAGE as COLLECT
from tasks.evaluate import STAGE as EVALUATE
from tasks.instruct import STAGE as INSTRUCT
from tasks.pretrain import STAGE as PRETRAIN
from tasks.promote import STAGE as PROMOTE
from tasks.quantize import STAGE as QUANTIZE
from tasks.reward import STAGE as REWARD
from tasks.rlhf import STAGE as RLHF
from tasks.tokenize import STAGE as TOKENIZE

STAGES = (COLLECT, CLEAN, TOKENIZE, PRETRAIN, INSTRUCT, REWARD, RLHF, QUANTIZE, EVALUATE, PROMOTE)
STAGE_NAMES = tuple(stage.name for stage in STAGES)
