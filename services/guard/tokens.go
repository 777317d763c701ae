package guard

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
)

// MinTokenBytes is the shortest token that there may be.
const MinTokenBytes = 16

// Everyone, where apps are listed, stands for every caller.
const Everyone = "*"

// tokenFileLimit is far more than the tokens of one app take.
const tokenFileLimit = 64 << 10

// Tokens says whose a token is. It keeps digests of tokens, not the tokens. It is safe for concurrent use.
type Tokens struct {
	table *watched[table]
	apps  []string
}

// A table is the tokens of all apps.
type table []entry

// An entry is one token of an app; an app may have several.
type entry struct {
	app    string
	digest [sha256.Size]byte
}

// NewTokens makes the table of the apps with the given tokens, by app-id. An app that has no token, a token that is short or
// that a header cannot carry, and one that two apps have are errors; none of them repeats a token.
func NewTokens(tokens map[string][]string) (*Tokens, error) {
	t, err := newTable(tokens)
	if err != nil {
		return nil, fmt.Errorf("guard: %w", err)
	}
	return &Tokens{table: unchanging(t), apps: slices.Sorted(maps.Keys(tokens))}, nil
}

// TokenFiles makes the table of the apps whose tokens are in the given files, by app-id: see ReadTokens. The logger hears of
// files that changed; nil: nobody.
func TokenFiles(files map[string]string, log *slog.Logger) (*Tokens, error) {
	load := func() (table, error) {
		tokens := map[string][]string{}
		for _, app := range slices.Sorted(maps.Keys(files)) {
			lines, err := ReadTokens(files[app])
			if err != nil {
				return nil, fmt.Errorf("app %q: %w", app, err)
			}
			tokens[app] = lines
		}
		return newTable(tokens)
	}
	w, err := watch("the tokens of apps", slices.Collect(maps.Values(files)), load, log)
	if err != nil {
		return nil, fmt.Errorf("guard: %w", err)
	}
	return &Tokens{table: w, apps: slices.Sorted(maps.Keys(files))}, nil
}

// Has reports whether an app has a token.
func (t *Tokens) Has(app string) bool {
	_, found := slices.BinarySearch(t.apps, app)
	return found
}

// App is the app that has a token, "" for one that nobody has.
func (t *Tokens) App(token string) string {
	if t == nil {
		return ""
	}
	return t.table.get().owner(token)
}

// owner compares every token in full, so that the time it takes says nothing of how much of it is right.
func (t table) owner(token string) string {
	digest := sha256.Sum256([]byte(token))
	found := -1
	for i := range t {
		found = subtle.ConstantTimeSelect(subtle.ConstantTimeCompare(digest[:], t[i].digest[:]), i, found)
	}
	if found < 0 {
		return ""
	}
	return t[found].app
}

func newTable(tokens map[string][]string) (t table, err error) {
	for _, app := range slices.Sorted(maps.Keys(tokens)) {
		if t, err = t.with(app, tokens[app]); err != nil {
			return nil, fmt.Errorf("app %q %w", app, err)
		}
	}
	return t, nil
}

func (t table) with(app string, tokens []string) (table, error) {
	if app == "" || app == Everyone {
		return nil, fmt.Errorf("has no name of an app; choose an app-id")
	}
	if len(tokens) == 0 {
		return nil, fmt.Errorf("has no token")
	}
	for _, token := range tokens {
		if err := checkToken(token); err != nil {
			return nil, fmt.Errorf("has %w", err)
		}
		digest := sha256.Sum256([]byte(token))
		for _, other := range t {
			if other.digest == digest {
				return nil, fmt.Errorf("has a token that app %q has too; give each its own", other.app)
			}
		}
		t = append(t, entry{app, digest})
	}
	return t, nil
}

func checkToken(token string) error {
	switch {
	case len(token) < MinTokenBytes:
		return fmt.Errorf("a token of %d bytes; make it of %d at least, such as by `openssl rand -base64 32`", len(token), MinTokenBytes)
	case strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }):
		return fmt.Errorf("a token with blanks or other characters that no header carries; make one by `openssl rand -base64 32`")
	default:
		return nil
	}
}

// ReadTokens reads a file that holds one token a line, at least one: a second one while a token is being replaced. Errors name
// the file, and never repeat what is in it.
func ReadTokens(name string) ([]string, error) {
	file, err := os.Open(name) //nolint:gosec // the operator names it
	if err != nil {
		return nil, fmt.Errorf("cannot read the token: %w", err)
	}
	defer func() { _ = file.Close() }() // it was only read
	text, err := io.ReadAll(io.LimitReader(file, tokenFileLimit+1))
	if err != nil {
		return nil, fmt.Errorf("cannot read the token: %w", err)
	}
	if len(text) > tokenFileLimit {
		return nil, fmt.Errorf("%s is larger than the %d bytes that tokens take; is it another file?", name, tokenFileLimit)
	}
	var tokens []string
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line != "" {
			tokens = append(tokens, line)
		}
	}
	if len(tokens) == 0 {
		return nil, fmt.Errorf("%s holds no token: write one into it, such as by `openssl rand -base64 32`", name)
	}
	return tokens, nil
}

// Bearer is the token of a request's Authorization. One that is not a bearer's, or that is there twice, is given but empty.
func Bearer(authorization []string) (token string, given bool) {
	if len(authorization) != 1 {
		return "", len(authorization) > 0
	}
	scheme, token, _ := strings.Cut(authorization[0], " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return "", true
	}
	return strings.TrimSpace(token), true
}
