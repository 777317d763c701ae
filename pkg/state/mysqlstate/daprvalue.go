package mysqlstate

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/internal/daprrows"
)

// daprETag is an ETag for Dapr's column of 36 characters: a UUID of version 8 (RFC 9562), whose first 48 bits are the version of the
// value, for which the table has no column, and 74 others chance. To Dapr an ETag is opaque.
func daprETag(version int64) string {
	var id [16]byte
	_, _ = rand.Read(id[6:]) // it never fails
	for i := range 6 {
		id[i] = byte(version >> (40 - 8*i))
	}
	id[6] = 0x80 | id[6]&0x0f
	id[8] = 0x80 | id[8]&0x3f
	text := hex.EncodeToString(id[:])
	return strings.Join([]string{text[:8], text[8:12], text[12:16], text[16:20], text[20:]}, "-")
}

// versionOf is the version that an ETag tells. One that Dapr made tells none: its REPLACE INTO makes a new row, with version 1.
func versionOf(etag string) int64 {
	if len(etag) != 36 || etag[14] != '8' {
		return 1
	}
	n, err := strconv.ParseInt(etag[:8]+etag[9:13], 16, 64)
	if err != nil || n < 1 {
		return 1
	}
	return n
}

// A daprValue is a value as Dapr's table has it: JSON, or with binary the base64 of what stands for itself, as a JSON string.
type daprValue struct {
	text   string
	binary bool
}

// daprStored is how a value is written: as JSON, so that it can be queried by others too, where the column keeps its numbers to the
// digit. MariaDB's column is text; that of MySQL has 64-bit integers and floats, and a value with another number is written as bytes,
// as daprd writes those of its gRPC clients, and reads them.
func daprStored(value []byte, mariaDB bool) daprValue {
	if mariaDB || keepsNumbers(value) {
		return daprValue{text: string(value)}
	}
	return daprValue{text: `"` + base64.StdEncoding.EncodeToString(value) + `"`, binary: true}
}

// keepsNumbers reports whether MySQL's JSON has every number of the value as it is written. Where that is not certain it has not.
func keepsNumbers(value []byte) bool {
	dec := jsontext.NewDecoder(strings.NewReader(string(value)))
	for {
		switch dec.PeekKind() {
		case '0':
			number, err := dec.ReadValue()
			if err != nil || !keepsNumber(string(number)) {
				return false
			}
		case 0:
			return true // the end, or no JSON, which the server refuses
		default:
			if _, err := dec.ReadToken(); err != nil {
				return true
			}
		}
	}
}

// keepsNumber is true of integers of 64 bits, and of decimals that a float has to the digit and MySQL writes without an exponent.
func keepsNumber(text string) bool {
	if !strings.ContainsAny(text, ".eE") {
		if strings.HasPrefix(text, "-") {
			_, err := strconv.ParseInt(text, 10, 64)
			return err == nil && text != "-0"
		}
		_, err := strconv.ParseUint(text, 10, 64)
		return err == nil
	}
	f, err := strconv.ParseFloat(text, 64)
	size := max(f, -f)
	return err == nil && size >= 1e-3 && size < 1e12 && len(text) <= 16 && strconv.FormatFloat(f, 'f', -1, 64) == text
}

// read is the value as it was saved.
func (v daprValue) read(key string, mariaDB bool) ([]byte, error) {
	value := []byte(v.text)
	if !v.binary && mariaDB {
		return value, nil
	}
	if !v.binary {
		compact := jsontext.Value(value)
		if err := compact.Compact(jsontext.AllowDuplicateNames(true)); err != nil {
			return value, nil //nolint:nilerr // whoever reads it says that it is no JSON
		}
		return compact, nil // MySQL puts blanks behind commas and colons
	}
	var text string
	if err := json.Unmarshal(value, &text); err != nil {
		return nil, fmt.Errorf("%w: the row of key %q says isbinary, and its value is no JSON string", state.ErrCorrupt, key)
	}
	decoded, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, fmt.Errorf("%w: the row of key %q says isbinary, and its value is no base64", state.ErrCorrupt, key)
	}
	if daprrows.IsEncrypted(decoded) {
		return nil, fmt.Errorf("%w: the value of key %q is encrypted by Dapr: %s", state.ErrCorrupt, key, daprrows.DecryptFirst)
	}
	return decoded, nil
}
