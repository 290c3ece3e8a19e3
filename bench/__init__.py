"""`make bench`: what the sync of models costs beside manual rsync and copy, and what converged hosts cost."""
