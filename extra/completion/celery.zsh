#compdef celery
# Completion for zsh: put this file into a directory of $fpath, under the name `_celery`.
eval "$(_CELERY_COMPLETE=zsh_source celery)"
_celery_completion "$@"
