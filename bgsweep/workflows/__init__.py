"""Commands from start to end; each module runs one."""
