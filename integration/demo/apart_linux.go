package main

import "syscall"

// apart keeps a terminal's interrupt from a node, which is ended by us, and ends it when we are killed.
func apart() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
