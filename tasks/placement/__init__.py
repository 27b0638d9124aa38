"""Where a stage is computed: in this process, in others of this machine, on several hosts, on another machine."""
