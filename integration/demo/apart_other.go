//go:build unix && !linux

package main

import "syscall"

// apart keeps a terminal's interrupt from a node, which is ended by us.
func apart() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
