package state

import "context"

// An Inspector is an Engine that can say whether what lies in its place is what it can work with. Rows that another program made may not be: those
// of Dapr's actors, and values that Dapr has encrypted.
type Inspector interface {
	Engine

	// Inspect looks at a part of the rows, as many as limit says at most, and returns why the store cannot be used, as an ErrInvalid that names a
	// row; nil: it has found nothing. Any other error is that of looking.
	Inspect(ctx context.Context, limit int) error
}
