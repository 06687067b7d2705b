// Package sitter stands in for go-tree-sitter, which needs a C compiler: it has what Vale names of it and parses nothing.
//
// Vale parses source code with it. Leasegate gives Vale prose only (.vale.ini reads .proto, .yaml and .py as plain text).
package sitter

import (
	"context"
	"errors"
)

// What a caller sees that asks Vale to parse source code.
var errNoParser = errors.New("this build of Vale does not parse source code: give the file a text format in .vale.ini")

type (
	Language    struct{}
	Parser      struct{}
	Tree        struct{}
	Node        struct{}
	Query       struct{}
	QueryCursor struct{}
	Point       struct{ Row, Column uint32 }

	QueryCapture struct {
		Index uint32
		Node  *Node
	}
	QueryMatch struct{ Captures []QueryCapture }
)

func NewParser() *Parser                                               { return &Parser{} }
func (*Parser) SetLanguage(*Language)                                  {}
func (*Parser) ParseCtx(context.Context, *Tree, []byte) (*Tree, error) { return nil, errNoParser }
func (*Tree) RootNode() *Node                                          { return &Node{} }
func (*Node) Content([]byte) string                                    { return "" }
func (*Node) StartPoint() Point                                        { return Point{} }
func NewQuery([]byte, *Language) (*Query, error)                       { return nil, errNoParser }
func (*Query) CaptureNameForId(uint32) string                          { return "" }
func NewQueryCursor() *QueryCursor                                     { return &QueryCursor{} }
func (*QueryCursor) Exec(*Query, *Node)                                {}
func (*QueryCursor) NextMatch() (*QueryMatch, bool)                    { return nil, false }
func (*QueryCursor) FilterPredicates(match *QueryMatch, _ []byte) *QueryMatch {
	return match
}
