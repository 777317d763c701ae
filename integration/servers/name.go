package servers

import (
	"crypto/rand"
	"net/url"
	"strings"
)

// token returns a name that nobody else has, of lower-case letters and digits, fit for virtual hosts, databases and cookies.
func token() string { return strings.ToLower(rand.Text()) }

// userinfo returns user:password@ as it stands in a URL.
func userinfo(user, password string) string { return url.UserPassword(user, password).String() + "@" }
