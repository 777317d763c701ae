package connect

import (
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"slices"
	"strings"

	"github.com/google/uuid"
)

// An endpoint is one that may be called.
type endpoint struct {
	service, method, path string
}

// A manifest is all that a session may call. It never changes: another takes its place.
type manifest struct {
	version int64
	byGUID  map[uuid.UUID]endpoint
}

// guid is the id of an endpoint for the session that has the salt. Nobody makes that of another session without its salt.
func guid(salt []byte, e endpoint) uuid.UUID {
	mac := hmac.New(sha256.New, salt)
	_, _ = mac.Write([]byte(e.service + "\n" + e.method + " " + e.path))
	id := uuid.UUID(mac.Sum(nil)[:16])
	id[6] = id[6]&0x0f | 0x80 // version 8, of one's own making (RFC 9562)
	id[8] = id[8]&0x3f | 0x80
	return id
}

// endpointsOf reads what permissions sends. What is no endpoint with a path of its own is left out: a client names no path but those.
func endpointsOf(capabilities map[string][]string) []endpoint {
	var all []endpoint
	for service, list := range capabilities {
		for _, written := range list {
			method, path, found := strings.Cut(written, " ")
			if found && strings.HasPrefix(path, "/") && !strings.ContainsAny(path, "{}?#") {
				all = append(all, endpoint{service, method, path})
			}
		}
	}
	slices.SortFunc(all, func(a, b endpoint) int {
		return cmp.Or(cmp.Compare(a.service, b.service), cmp.Compare(a.path, b.path), cmp.Compare(a.method, b.method))
	})
	return all
}

// newManifest makes the manifest of a session.
func newManifest(salt []byte, version int64, endpoints []endpoint) *manifest {
	m := &manifest{version: version, byGUID: make(map[uuid.UUID]endpoint, len(endpoints))}
	for _, e := range endpoints {
		m.byGUID[guid(salt, e)] = e
	}
	return m
}

// text is the manifest as clients read it.
func (m *manifest) text() *textManifest {
	t := &textManifest{Version: m.version, Endpoints: make([]textEndpoint, 0, len(m.byGUID))}
	for id, e := range m.byGUID {
		t.Endpoints = append(t.Endpoints, textEndpoint{e.service, e.method, e.path, id.String()})
	}
	slices.SortFunc(t.Endpoints, func(a, b textEndpoint) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.Path, b.Path), cmp.Compare(a.Method, b.Method))
	})
	return t
}
