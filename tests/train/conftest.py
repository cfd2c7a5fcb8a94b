"""One thread a process: the tests of this folder share two cores with others."""

import torch

torch.set_num_threads(1)
