"""`make bench`: what the role tfserving_models costs, beside rsync by hand and Ansible's own ways to copy."""
