//go:build !unix

package filelock

import "os"

// Lock does nothing: there is no lock that ends with the process in the standard library.
func Lock(*os.File) error { return nil }
