// Package filelock keeps several processes of one machine apart by a lock on an open file, which ends with the process that has it.
package filelock

import "errors"

// ErrTaken reports that another process, or another open file of this one, has the lock.
var ErrTaken = errors.New("the file is locked by another process")
