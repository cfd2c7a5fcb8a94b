"""The drill: stop small trainings in every supported way and check that each resumes exactly."""
