package mesh

import (
	"net"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"
)

// hopByHop are the headers that are about one connection (RFC 9110, section 7.6.1, and what is in use beside it): they end
// at the next hop, as those do that Connection names.
var hopByHop = [...]string{
	"Connection", "Keep-Alive", "Proxy-Connection", "Proxy-Authenticate", "Proxy-Authorization", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
}

// endToEnd returns a copy of a header without what is hop-by-hop. The values are shared: they must not be changed in place.
func endToEnd(h http.Header) http.Header {
	out := make(http.Header, len(h)+4) // and what a hop adds
	for name, values := range h {
		out[name] = values
	}
	removeHopByHop(out)
	return out
}

func removeHopByHop(h http.Header) {
	for _, list := range h["Connection"] {
		for name := range strings.SplitSeq(list, ",") {
			if name = textproto.TrimString(name); name != "" {
				h.Del(name)
			}
		}
	}
	for _, name := range hopByHop {
		delete(h, name)
	}
}

// forwarded returns the headers of a request as the next hop gets them: end-to-end ones as they came, X-Forwarded-* with this
// hop in them, and the count of hops. A Forwarded header would be incomplete from here on, and is left out.
func forwarded(r *http.Request, hops int) http.Header {
	out := endToEnd(r.Header)
	if trailersWanted(r.Header["Te"]) {
		out["Te"] = []string{"trailers"}
	}
	delete(out, "Forwarded")
	if caller, _, err := net.SplitHostPort(r.RemoteAddr); err == nil {
		if before := r.Header["X-Forwarded-For"]; len(before) > 0 {
			caller = strings.Join(before, ", ") + ", " + caller
		}
		out["X-Forwarded-For"] = []string{caller}
	}
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	out["X-Forwarded-Host"], out["X-Forwarded-Proto"] = []string{r.Host}, []string{scheme}
	out[headerHops] = []string{strconv.Itoa(hops)}
	if _, set := out["User-Agent"]; !set {
		out["User-Agent"] = []string{""} // else the transport says that it is Go
	}
	return out
}

// takesOver reports whether a request asks for its connection, as a WebSocket does. HTTP/2 in clear text is refused by
// leaving the wish out: requests within it would pass by whoever looks at requests here.
func takesOver(h http.Header) bool {
	asked := false
	for _, list := range h["Connection"] {
		for item := range strings.SplitSeq(list, ",") {
			asked = asked || strings.EqualFold(textproto.TrimString(item), "upgrade")
		}
	}
	to := h["Upgrade"]
	return asked && len(to) == 1 && to[0] != "" && !strings.Contains(strings.ToLower(to[0]), "h2c")
}

// trailersWanted reports whether a TE header says that trailers are understood, which is the one part of it that is passed on.
func trailersWanted(te []string) bool {
	for _, list := range te {
		for item := range strings.SplitSeq(list, ",") {
			if strings.EqualFold(textproto.TrimString(item), "trailers") {
				return true
			}
		}
	}
	return false
}
