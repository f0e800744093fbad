"""The programs: worker and beat, with what belongs to a process of its own (banner, signals, exit codes)."""
