package scaffold

import (
	"errors"
	"fmt"
	"go/token"
	"regexp"
	"slices"
	"strings"
)

// maxName bounds names, so that what is made of them stays readable.
const maxName = 24

// ErrName is the error of a name that no service can have.
var ErrName = errors.New("no name for a service")

var wellFormed = regexp.MustCompile(`^[a-z][a-z0-9]*(-[a-z][a-z0-9]*)*$`)

// used are the packages that the written files import, by the last parts of their paths, and what else would not compile as the name of one.
func used() []string {
	return []string{"bannou", "bus", "bytes", "context", "embed", "errors", "events", "host", "http", "httptest", "io", "jsonbody", "main", "memorybus",
		"memorystate", "os", "problem", "program", "require", "slices", "state", "testing", "time",
		"any", "bool", "byte", "error", "int", "string", "nil", "true", "false", "new", "make", "len", "init", "internal", "vendor", "testdata", "record", "document", "horizon"}
}

// checkName reports a name of which no package, topic and app-id can be made.
func checkName(name string) error {
	word := strings.ReplaceAll(name, "-", "")
	switch {
	case !wellFormed.MatchString(name):
		return fmt.Errorf("%w: %q: choose lower-case letters and digits, with single dashes between words that begin with a letter, as in match-history", ErrName, name)
	case len(name) > maxName:
		return fmt.Errorf("%w: %q has %d characters, and may have %d", ErrName, name, len(name), maxName)
	case token.IsKeyword(word) || slices.Contains(used(), word):
		return fmt.Errorf("%w: %q means something else in Go, or in the files that would be written; choose another", ErrName, name)
	case strings.HasSuffix(word, "test"):
		return fmt.Errorf("%w: %q ends as the names of test packages do; choose another", ErrName, name)
	case strings.HasPrefix(name, "bannou-"):
		return fmt.Errorf("%w: %q: what begins with bannou- is the suite's own; choose another", ErrName, name)
	default:
		return nil
	}
}

// exported is the Go name of a service, in words as tools/eventgen makes those of topics: initialisms are in capitals.
func exported(name string) string {
	var out strings.Builder
	for word := range strings.SplitSeq(name, "-") {
		switch word {
		case "api", "cpu", "http", "https", "id", "ip", "json", "jwt", "sql", "tcp", "tls", "ttl", "udp", "uri", "url", "uuid":
			out.WriteString(strings.ToUpper(word))
		case "ids", "urls", "uris", "uuids":
			out.WriteString(strings.ToUpper(word[:len(word)-1]) + "s")
		case "etag":
			out.WriteString("ETag")
		default:
			out.WriteString(strings.ToUpper(word[:1]) + word[1:])
		}
	}
	return out.String()
}
