//go:build !unix

package migration

import "os"

// lock does nothing: there is no lock that ends with the process in the standard library.
func lock(*os.File) error { return nil }
