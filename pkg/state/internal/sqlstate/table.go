package sqlstate

import (
	"fmt"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// maxTable leaves room for the suffixes of a table's indexes and of its table of versions, within the 64 characters
// that MySQL allows.
const maxTable = 54

// CheckTable checks a table name, which is the one thing of a statement that cannot be bound.
func CheckTable(name string) error {
	ok := name != "" && len(name) <= maxTable && (name[0] < '0' || name[0] > '9')
	for i := range len(name) {
		c := name[i]
		ok = ok && (c == '_' || 'a' <= c && c <= 'z' || '0' <= c && c <= '9')
	}
	if !ok {
		return fmt.Errorf("%w: table name %q: use 1 to %d lower-case letters, digits and underscores, the first no digit", state.ErrInvalid, name, maxTable)
	}
	return nil
}
