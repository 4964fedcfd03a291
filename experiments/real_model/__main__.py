"""Runs the command line of the study."""

from experiments import real_model
from experiments.common import main

main(real_model.STUDY, real_model.__doc__, **real_model.AXES)
