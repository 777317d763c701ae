// Package scaffold writes a service to begin with: a module of this repository, with the schemas of its events, a handler, an endpoint, tests, and
// a program that runs it on a node of its own. It works as it is written, and is then changed.
//
// The files are templates in the folder template. What they become depends on the name, the place and the repository's Go version only.
//
// The module is one of the repository, and no other, because the libraries have no published versions: it takes them from beside it, by replace
// lines and by go.work. So it may import what services do, is built, tested and linted with the others, and moves with them.
package scaffold
