package problem_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/services/problem"
)

func TestWriteAnswersTheProblemThatAnErrorWraps(t *testing.T) {
	w := httptest.NewRecorder()
	w.Header().Set("X-Request-Id", "r-1")
	problem.Write(w, fmt.Errorf("save: %w", problem.Invalid("options.ttl", "is %d, and has to be positive", -7)))

	require.Equal(t, 400, w.Code)
	require.Equal(t, problem.ContentType, w.Header().Get("Content-Type"))
	var got map[string]any
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &got))
	require.Equal(t, map[string]any{
		"type": "about:blank", "title": "Bad Request", "status": 400.0, "code": "invalid_member",
		"member": "options.ttl", "instance": "r-1",
		"detail": "member options.ttl is -7, and has to be positive",
	}, got)
}

func TestWriteTellsNothingOfAnUnexpectedError(t *testing.T) {
	w := httptest.NewRecorder()
	problem.Write(w, errors.New("dial amqp://user:secret@broker"))
	require.Equal(t, 500, w.Code)
	require.NotContains(t, w.Body.String(), "secret")
	require.Contains(t, w.Body.String(), `"code":"internal"`)
}

func TestUnavailableSaysWhenToTryAgain(t *testing.T) {
	w := httptest.NewRecorder()
	problem.Write(w, problem.New(problem.Unavailable, "the broker is away"))
	require.Equal(t, 503, w.Code)
	require.Equal(t, "1", w.Header().Get("Retry-After"))
}

func TestRequireNamesTheFirstEmptyMember(t *testing.T) {
	require.NoError(t, problem.Require("topic", "a", "key", "b"))
	require.Equal(t, "key", problem.From(problem.Require("topic", "a", "key", "", "x", "")).Member)
}

func TestCauseStaysReachable(t *testing.T) {
	err := fmt.Errorf("outer: %w", problem.New(problem.Conflict, "no").Because(io.EOF))
	require.ErrorIs(t, err, io.EOF)
}

// A code that exists in one place and not in the others would be a promise to nobody.
func TestCodesAreTheSameInTypeDocumentAndComment(t *testing.T) {
	comment, err := os.ReadFile("doc.go")
	require.NoError(t, err)
	_, enum, _ := strings.Cut(string(problem.OpenAPI()), "enum:")
	for _, code := range problem.Codes() {
		require.Contains(t, string(comment), fmt.Sprintf("//\t%-20s  %d ", code, code.Status()))
		require.Contains(t, enum, "- "+string(code)+"\n")
		if code != problem.Internal {
			require.NotEqual(t, 500, code.Status(), code)
		}
	}
	require.Equal(t, len(problem.Codes()), strings.Count(enum[:strings.Index(enum, "member:")], "- "))
}
