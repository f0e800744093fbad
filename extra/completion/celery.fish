# Completion for fish: put this file into ~/.config/fish/completions.
_CELERY_COMPLETE=fish_source celery | source
