"""Small trainings stopped in each way that there is: each must come back exactly."""
