//go:build !unix

package cli

import "os"

// screenHeight is not known here.
func screenHeight(*os.File) int { return 0 }
