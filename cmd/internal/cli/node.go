package cli

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/bannou-mesh/bannou/pkg/mesh"
	"github.com/bannou-mesh/bannou/services/events/eventsapi"
	"github.com/bannou-mesh/bannou/services/guard"
	"github.com/bannou-mesh/bannou/services/mesh/meshapi"
	"github.com/bannou-mesh/bannou/services/messaging/messagingapi"
	"github.com/bannou-mesh/bannou/services/state/stateapi"
)

// nodeFlag names the node that a command talks to, and says who the caller is.
type nodeFlag struct {
	Node      string `default:"http://127.0.0.1:3500" help:"Address of the node to talk to."`
	TokenFile string `name:"token-file" type:"path" help:"File with a token: of the mesh, or of an app, for nodes that ask who calls and stores that are reserved for apps."`
	CAFile    string `name:"ca-file" type:"path" help:"File with the certificate of the authority that signed the node's, for https. Default: those that the system trusts."`
	CertFile  string `name:"cert-file" type:"path" help:"File with a certificate of the mesh to show, instead of a token."`
	KeyFile   string `name:"key-file" type:"path" help:"File with its key."`
}

// base is the node's URL, checked.
func (f nodeFlag) base() (string, error) {
	u, err := url.Parse(f.Node)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return "", usageError{fmt.Errorf("--node %q: write it as http://host:port", f.Node)}
	}
	return strings.TrimSuffix(f.Node, "/"), nil
}

// client talks to the node, whose URL is base.
func (f nodeFlag) client() (client *http.Client, base string, err error) {
	if base, err = f.base(); err != nil {
		return nil, "", err
	}
	config, err := f.tls()
	if err != nil {
		return nil, "", usageError{err}
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = config
	showing := &showing{transport: transport}
	if f.TokenFile != "" {
		tokens, err := guard.ReadTokens(f.TokenFile)
		if err != nil {
			return nil, "", usageError{fmt.Errorf("--token-file: %w", err)}
		}
		u, err := url.Parse(base)
		if err != nil {
			return nil, "", usageError{err}
		}
		showing.token, showing.host, showing.invoke = tokens[0], u.Host, u.Path+mesh.ProxyPattern
	}
	return &http.Client{Transport: showing}, base, nil
}

func (f nodeFlag) tls() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	var err error
	if f.CAFile != "" {
		if config.RootCAs, err = guard.ReadAuthority(f.CAFile); err != nil {
			return nil, fmt.Errorf("--ca-file: %w", err)
		}
	}
	if (f.CertFile == "") != (f.KeyFile == "") {
		return nil, errors.New("--cert-file and --key-file go together: give both, or none")
	}
	if f.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(f.CertFile, f.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("--cert-file: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// showing adds the token to requests to the node, not to those that it redirects elsewhere. What goes on to a target takes its
// Authorization there: the token is beside it, in the header that ends at the node.
type showing struct {
	transport   http.RoundTripper
	token, host string
	invoke      string // paths below it are a target's
}

func (s *showing) RoundTrip(r *http.Request) (*http.Response, error) {
	if s.token != "" && r.URL.Host == s.host {
		r = r.Clone(r.Context())
		if r.Header.Get("Authorization") == "" && !strings.HasPrefix(r.URL.Path, s.invoke) {
			r.Header.Set("Authorization", "Bearer "+s.token)
		} else {
			r.Header.Set(guard.TokenHeader, s.token)
		}
	}
	return s.transport.RoundTrip(r)
}

// messaging is the messaging service of the node.
func (f nodeFlag) messaging() (*messagingapi.Client, error) {
	client, base, err := f.client()
	if err != nil {
		return nil, err
	}
	return messagingapi.NewClient(base, messagingapi.WithHTTPClient(client))
}

// state is the state service of the node.
func (f nodeFlag) state() (*stateapi.Client, error) {
	client, base, err := f.client()
	if err != nil {
		return nil, err
	}
	return stateapi.NewClient(base, stateapi.WithHTTPClient(client))
}

// events is the events service of the node.
func (f nodeFlag) events() (*eventsapi.Client, error) {
	client, base, err := f.client()
	if err != nil {
		return nil, err
	}
	return eventsapi.NewClient(base, eventsapi.WithHTTPClient(client))
}

// mesh is the mesh service of the node.
func (f nodeFlag) mesh() (*meshapi.Client, error) {
	client, base, err := f.client()
	if err != nil {
		return nil, err
	}
	return meshapi.NewClient(base, meshapi.WithHTTPClient(client))
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

// unreachable says why there was no answer.
func unreachable(err error) error {
	failed, ok := errors.AsType[*url.Error](err)
	if !ok {
		return err
	}
	u, parseErr := url.Parse(failed.URL)
	if parseErr != nil {
		return err
	}
	node := u.Scheme + "://" + u.Host
	untrusted, ofTLS := errors.AsType[*tls.CertificateVerificationError](err)
	_, unknown := errors.AsType[x509.UnknownAuthorityError](err)
	switch {
	case unknown:
		return fmt.Errorf("the certificate of the node at %s is of an authority that is not trusted here: name its file with --ca-file (%w)", node, failed.Err)
	case ofTLS:
		return fmt.Errorf("the certificate of the node at %s does not hold for it (%w)", node, untrusted.Err)
	case errors.Is(err, http.ErrSchemeMismatch):
		return fmt.Errorf("the node at %s speaks http, not https: name it with --node http://%s", u.Host, u.Host)
	default:
		return fmt.Errorf("no node answers at %s: start one with `bannou serve`, or name another with --node (%w)", node, failed.Err)
	}
}

// wantsTLS is the sentence with which net/http answers, without TLS, who speaks without it.
const wantsTLS = "Client sent an HTTP request to an HTTPS server."

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
	if res.StatusCode == http.StatusBadRequest && strings.TrimSpace(string(body)) == wantsTLS && res.Request != nil {
		host := res.Request.URL.Host
		return fmt.Errorf("the node at %s speaks https: name it with --node https://%s, and with --ca-file the authority of its certificate", host, host)
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
