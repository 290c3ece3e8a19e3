"""`make bench`: what the sync of models costs beside rsync by hand and copy, and what converged hosts cost."""
