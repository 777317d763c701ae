package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/bannou-mesh/bannou/cmd/internal/config"
	"github.com/bannou-mesh/bannou/services/mesh/meshapi"
	"github.com/bannou-mesh/bannou/services/messaging/messagingapi"
)

// nodeFlag names the node that a command talks to.
type nodeFlag struct {
	Node string `default:"http://127.0.0.1:3500" help:"Address of the node to talk to."`
}

// tokenFlag says who the caller is, where stores are reserved for apps.
type tokenFlag struct {
	TokenFile string `name:"token-file" type:"path" help:"File with the token of an app, for stores that are reserved for apps."`
}

// authorization is the header of requests that send the token; empty without one.
func (f tokenFlag) authorization() (string, error) {
	if f.TokenFile == "" {
		return "", nil
	}
	tokens, err := config.ReadTokens(f.TokenFile)
	if err != nil {
		return "", usageError{fmt.Errorf("--token-file: %w", err)}
	}
	return "Bearer " + tokens[0], nil
}

// base is the node's URL, checked.
func (f nodeFlag) base() (string, error) {
	u, err := url.Parse(f.Node)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return "", usageError{fmt.Errorf("--node %q: write it as http://host:port", f.Node)}
	}
	return strings.TrimSuffix(f.Node, "/"), nil
}

// messaging is the messaging service of the node.
func (f nodeFlag) messaging() (*messagingapi.Client, error) {
	base, err := f.base()
	if err != nil {
		return nil, err
	}
	return messagingapi.NewClient(base)
}

// mesh is the mesh service of the node.
func (f nodeFlag) mesh() (*meshapi.Client, error) {
	base, err := f.base()
	if err != nil {
		return nil, err
	}
	return meshapi.NewClient(base)
}

// answerLimit bounds what a command reads of an answer: a page of 1000 values of 4 MiB is not for a terminal.
const answerLimit = 256 << 20

// decode makes a value of the body that read gave.
func decode[T any](body []byte, err error) (T, error) {
	var answer T
	if err != nil {
		return answer, err
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return answer, fmt.Errorf("the node's answer cannot be read, is it of another version? %w", err)
	}
	return answer, nil
}

// read gives the body of a successful answer, or makes an error of the problem that it holds.
func read(res *http.Response, err error) ([]byte, error) {
	if err != nil {
		return nil, unreachable(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, answerLimit))
	if err != nil {
		return nil, fmt.Errorf("the node's answer broke off: %w", err)
	}
	if res.StatusCode/100 != 2 {
		return nil, refused(res, body)
	}
	return body, nil
}

func unreachable(err error) error {
	if failed, ok := errors.AsType[*url.Error](err); ok {
		if u, parsed := url.Parse(failed.URL); parsed == nil {
			return fmt.Errorf("no node answers at %s://%s: start one with `bannou serve`, or name another with --node (%w)", u.Scheme, u.Host, failed.Err)
		}
	}
	return err
}

// refused is what a node said no with.
func refused(res *http.Response, body []byte) error {
	var problem struct{ Title, Detail, Code string }
	if json.Unmarshal(body, &problem) == nil && (problem.Detail != "" || problem.Title != "") {
		text := problem.Detail
		if text == "" {
			text = problem.Title
		}
		return fmt.Errorf("%s (%s, status %d)", printable(text), printable(problem.Code), res.StatusCode)
	}
	return fmt.Errorf("status %s: %s", res.Status, printable(strings.TrimSpace(string(body[:min(len(body), 500)]))))
}

// jsonArgument is a JSON value given on the command line; - reads it from standard input.
func jsonArgument(std *stdio, name, argument string) (json.RawMessage, error) {
	text := []byte(argument)
	if argument == "-" {
		var err error
		if text, err = io.ReadAll(std.in); err != nil {
			return nil, fmt.Errorf("cannot read %s from standard input: %w", name, err)
		}
	}
	if !json.Valid(text) {
		return nil, usageError{fmt.Errorf("%s is not JSON: quote it for the shell, as in '{\"name\": \"Ada\"}', or give - to read standard input", name)}
	}
	return text, nil
}
