"""What rules of every kind of machine share: reading a kernel, and writing one."""
