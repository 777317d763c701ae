package mysqlstate

import (
	"encoding/base64"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// An ETag is a UUID that tells the version, and never the same one twice; one of Dapr's tells none.
func TestDaprETag(t *testing.T) {
	for _, version := range []int64{1, 2, 255, 1 << 16, 1<<48 - 1} {
		etag := daprETag(version)
		id, err := uuid.Parse(etag)
		require.NoError(t, err)
		require.Equal(t, uuid.Version(8), id.Version())
		require.Equal(t, uuid.RFC4122, id.Variant())
		require.Equal(t, version, versionOf(etag))
		require.NotEqual(t, etag, daprETag(version))
	}
	for _, etag := range []string{"", "x", uuid.NewString(), "00000000-0000-8000-8000-000000000000", "zzzzzzzz-zzzz-8000-8000-000000000000"} {
		require.EqualValues(t, 1, versionOf(etag), etag)
	}
}

// A value stays JSON where MySQL has its numbers to the digit, and comes back either way.
func TestDaprStored(t *testing.T) {
	for value, plain := range map[string]bool{
		"null": true, `"1e400"`: true, "0": true, "-1": true, "1.5": true, `{"n":[9007199254740993,-9223372036854775808]}`: true, "18446744073709551615": true,
		"18446744073709551616": false, "-9223372036854775809": false, "-0": false, "1.0": false, "1.10": false, "1e5": false, "1E5": false,
		"3.14159265358979323846": false, "0.0001": false, "1e400": false, `{"a":{"b":[1,1.10]}}`: false,
	} {
		stored := daprStored([]byte(value), false)
		require.Equal(t, plain, !stored.binary, value)
		back, err := stored.read("k", false)
		require.NoError(t, err)
		require.Equal(t, value, string(back))
		require.Equal(t, daprValue{text: value}, daprStored([]byte(value), true), "MariaDB keeps text")
	}
}

// Bytes that are none, and such as Dapr has encrypted, are told.
func TestDaprValueRefused(t *testing.T) {
	for _, text := range []string{`{"a":1}`, `"no base64!"`} {
		_, err := daprValue{text: text, binary: true}.read("k", true)
		require.ErrorIs(t, err, state.ErrCorrupt)
	}
	ciphertext := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("QUJD", 12) + "||name"))
	_, err := daprValue{text: `"` + ciphertext + `"`, binary: true}.read("k", true)
	require.ErrorIs(t, err, state.ErrCorrupt)
	require.ErrorContains(t, err, "primaryEncryptionKey")
	bytes, err := daprValue{text: `"bm8gSlNPTg=="`, binary: true}.read("k", true)
	require.NoError(t, err)
	require.Equal(t, "no JSON", string(bytes), "whoever reads it says that it is no JSON")
}
