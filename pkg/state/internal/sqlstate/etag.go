package sqlstate

import "crypto/rand"

// NewETag returns an ETag that was never used before: 26 random characters, 130 bits. It does not follow from the
// content, so that equal values written twice have different ETags.
func NewETag() string { return rand.Text() }
