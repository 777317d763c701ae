package daprstate

import (
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// The sidecar reads numbers as 64-bit floats. Its Redis component writes those up to wholeFrom with six digits after the point.
const (
	wholeFrom = 0x4ffffff
	places    = 6
)

// checkDigits refuses a value with a number that would come back as another one.
func checkDigits(value []byte, sixPlaces bool) error {
	d := jsontext.NewDecoder(strings.NewReader(string(value)))
	for {
		token, err := d.ReadToken()
		if err != nil { // the end: the store has checked that it is JSON
			return nil //nolint:nilerr // as said
		}
		if token.Kind() == '0' {
			if text := token.String(); !keeps(text, sixPlaces) {
				return fmt.Errorf("%w: Dapr's HTTP API would store the number %s as another one: write it as a string, or let it round", state.ErrInvalid, text)
			}
		}
	}
}

// keeps reports whether a number is the same once Dapr has read and written it.
func keeps(number string, sixPlaces bool) bool {
	f, err := strconv.ParseFloat(number, 64)
	if err != nil {
		return false
	}
	shortest := strconv.FormatFloat(f, 'e', -1, 64)
	if !sameNumber(number, shortest) {
		return false
	}
	if !sixPlaces || math.Abs(f) > wholeFrom {
		return true
	}
	return sameNumber(number, strconv.FormatFloat(f, 'f', places, 64))
}

// sameNumber compares what two texts of numbers say, of which the second has a sane exponent.
func sameNumber(a, b string) bool {
	if _, exponent, found := strings.Cut(strings.ToLower(a), "e"); found {
		if n, err := strconv.Atoi(exponent); err != nil || n > 400 || n < -400 {
			return false
		}
	}
	x, ok := new(big.Rat).SetString(a)
	y, also := new(big.Rat).SetString(b)
	return ok && also && x.Cmp(y) == 0
}
