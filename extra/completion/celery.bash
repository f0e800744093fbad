# Completion for bash: put `. /path/to/celery.bash` into ~/.bashrc, or this file into /etc/bash_completion.d.
# The program itself knows its commands and options, and is asked when the first word is completed.
_celery_load() {
    unset -f _celery_load
    complete -r celery
    if eval "$(_CELERY_COMPLETE=bash_source celery 2>/dev/null)"; then
        return 124 # bash asks again, and finds what was loaded
    fi
}
complete -F _celery_load celery
