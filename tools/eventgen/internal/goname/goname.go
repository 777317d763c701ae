// Package goname makes Go identifiers of the names that schemas use.
package goname

import (
	"strings"
	"unicode"
)

// Exported returns the exported Go name of a name in camelCase, or of one whose words are separated by dots, dashes or
// anything else that is not a letter or digit: "sessionIds" is SessionIDs, "mesh.endpoint.registered" is
// MeshEndpointRegistered. Initialisms that Go writes in capitals are written so. It is empty for a name without letters
// and digits.
func Exported(name string) string {
	var out strings.Builder
	for _, w := range words(name) {
		out.WriteString(capital(w))
	}
	return out.String()
}

// words splits a name at separators and before each capital that follows a small letter or a digit.
func words(name string) (all []string) {
	var word []rune
	end := func() {
		if len(word) > 0 {
			all = append(all, string(word))
			word = nil
		}
	}
	for _, r := range name {
		if !unicode.IsLetter(r) && !unicode.IsDigit(r) {
			end()
			continue
		}
		if unicode.IsUpper(r) && len(word) > 0 && !unicode.IsUpper(word[len(word)-1]) {
			end()
		}
		word = append(word, r)
	}
	end()
	return all
}

func capital(word string) string {
	switch lower := strings.ToLower(word); lower {
	case "api", "cpu", "http", "https", "id", "ip", "json", "jwt", "sql", "tcp", "tls", "ttl", "udp", "uri", "url", "uuid":
		return strings.ToUpper(word)
	case "ids", "urls", "uris", "uuids":
		return strings.ToUpper(word[:len(word)-1]) + "s"
	case "etag":
		return "ETag"
	}
	runes := []rune(word)
	return string(unicode.ToUpper(runes[0])) + string(runes[1:])
}
