package facade

import (
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// A SecretStore gives secrets by their names.
type SecretStore interface {
	// Secrets reads all of them. A secret is a set of values by names, mostly one by the secret's own.
	Secrets() (map[string]map[string]string, error)
}

// Environment is a SecretStore of the variables of the environment that begin with the prefix, which their names leave out. What Dapr and Bannou keep
// for themselves is not shown.
type Environment struct{ Prefix string }

// Secrets reads the environment.
func (e Environment) Secrets() (map[string]map[string]string, error) {
	all := map[string]map[string]string{}
	for _, pair := range os.Environ() {
		name, value, _ := strings.Cut(pair, "=")
		if own(name) {
			continue
		}
		if short, is := strings.CutPrefix(name, e.Prefix); is && short != "" {
			all[short] = map[string]string{short: value}
		}
	}
	return all, nil
}

func own(name string) bool {
	return name == "APP_API_TOKEN" || strings.HasPrefix(name, "DAPR_") || strings.HasPrefix(name, "BANNOU_")
}

// SecretFile is a SecretStore of a JSON file, read at each call. Names of nested objects are joined by the separator; with MultiValued only the
// members of the first level are secrets, of several values.
type SecretFile struct {
	Path        string
	Separator   string // default ":"
	MultiValued bool
}

// Secrets reads the file.
func (f SecretFile) Secrets() (map[string]map[string]string, error) {
	content, err := os.ReadFile(f.Path)
	if err != nil {
		return nil, fmt.Errorf("read the file of secrets: %w", err)
	}
	var tree map[string]jsontext.Value
	if err := json.Unmarshal(content, &tree); err != nil {
		return nil, fmt.Errorf("the file of secrets %s is not a JSON object", f.Path) // without err, which may quote a secret
	}
	separator := f.Separator
	if separator == "" {
		separator = ":"
	}
	all := map[string]map[string]string{}
	for name, value := range tree {
		flat := map[string]string{}
		flatten(flat, name, value, separator)
		if f.MultiValued {
			all[name] = map[string]string{}
			for path, text := range flat {
				all[name][strings.TrimPrefix(path, name+separator)] = text
			}
			continue
		}
		for path, text := range flat {
			all[path] = map[string]string{path: text}
		}
	}
	return all, nil
}

// flatten adds the values at and below a path. One that is no string is there as it is written: a number keeps its digits.
func flatten(into map[string]string, path string, value jsontext.Value, separator string) {
	var text string
	var members map[string]jsontext.Value
	var items []jsontext.Value
	switch { // the value is JSON, so that only its kind can differ
	case json.Unmarshal(value, &text) == nil && value.Kind() == '"':
		into[path] = text
	case json.Unmarshal(value, &members) == nil && value.Kind() == '{':
		for name, member := range members {
			flatten(into, path+separator+name, member, separator)
		}
	case json.Unmarshal(value, &items) == nil && value.Kind() == '[':
		for i, member := range items {
			flatten(into, path+separator+strconv.Itoa(i), member, separator)
		}
	default:
		into[path] = string(value)
	}
}

// secrets are all of a store.
func (s *Service) secrets(name string) (map[string]map[string]string, error) {
	if len(s.cfg.Secrets) == 0 {
		return nil, refuse(http.StatusInternalServerError, "ERR_SECRET_STORES_NOT_CONFIGURED", "secret store is not configured")
	}
	store, known := s.cfg.Secrets[name]
	if !known {
		return nil, refuse(http.StatusUnauthorized, "ERR_SECRET_STORE_NOT_FOUND", "failed finding secret store with key %s", name)
	}
	all, err := store.Secrets()
	if err != nil {
		return nil, refuse(http.StatusInternalServerError, "ERR_SECRET_GET", "failed getting secrets from secret store %s: %s", name, err)
	}
	return all, nil
}

// secret is one of a store.
func (s *Service) secret(store, key string) (map[string]string, error) {
	all, err := s.secrets(store)
	if err != nil {
		return nil, err
	}
	secret, found := all[key]
	if !found {
		return nil, refuse(http.StatusInternalServerError, "ERR_SECRET_GET", "failed getting secret with key %s from secret store %s: secret %s not found", key, store, key)
	}
	return secret, nil
}

// getSecret is GET /v1.0/secrets/{store}/{key}.
func (s *Service) getSecret(w http.ResponseWriter, r *http.Request) error {
	secret, err := s.secret(r.PathValue("store"), r.PathValue("key"))
	if err != nil {
		return err
	}
	answerJSON(w, http.StatusOK, secret)
	return nil
}

// bulkSecrets is GET /v1.0/secrets/{store}/bulk.
func (s *Service) bulkSecrets(w http.ResponseWriter, r *http.Request) error {
	all, err := s.secrets(r.PathValue("store"))
	if err != nil {
		return err
	}
	answerJSON(w, http.StatusOK, all)
	return nil
}
