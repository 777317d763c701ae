// Package daprrows knows what of the rows of Dapr's state stores is the same in all of them.
package daprrows

import (
	"regexp"
	"strings"
)

// Separator stands between the parts of a row's key: app||key, and app||type||actor||key of an actor.
const Separator = "||"

// Why rows cannot be used.
const (
	// DecryptFirst is the reason of an encrypted value.
	DecryptFirst = "its component has a primaryEncryptionKey, which only daprd can use; keep the store on Dapr, or have Dapr write it again without"
	// NoActors is that of an actor's row.
	NoActors = "an actor's (app||type||actor||key), and Bannou has no actors: keep this store on Dapr, or give its actors a store of their own"
)

// IsActors reports whether a key, without the app before it, is an actor's: type||actor||key. Dapr lets apps have no key with the separator in it.
func IsActors(key string) bool { return strings.Count(key, Separator) >= 2 }

var encrypted = regexp.MustCompile(`^[A-Za-z0-9+/]{38,}={0,2}\|\|[^|"]+$`)

// IsEncrypted reports whether a value is what daprd writes of a component with a primaryEncryptionKey: base64 of the ciphertext, of which 12 bytes
// are a nonce and 16 a tag, and the name of the key. It is no JSON. An app that keeps other bytes may have such a value of its own.
func IsEncrypted(value []byte) bool { return encrypted.Match(value) }
