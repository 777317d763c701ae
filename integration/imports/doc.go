// Package imports holds the table of who may import whom in this repository, as a test.
package imports
