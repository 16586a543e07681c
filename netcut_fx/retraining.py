from netcut_fx.retrain import *
from netcut_fx.retrain import RetrainOptions, TrainedCandidate, retrain
