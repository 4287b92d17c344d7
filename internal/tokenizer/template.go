package tokenizer

import (
	"fmt"
	"math"
	"slices"

	"github.com/sugarme/tokenizer/processor"
)

// part is what a template puts at one place: a sequence, or special tokens.
type part struct {
	sequence int // 0 or 1, -1 for special tokens
	typeID   int
	ids      []int32
	tokens   []string
}

// postProcessor is what happens to tokens after the model.
type postProcessor struct {
	template     *processor.TemplateProcessing // nil if nothing is added
	single, pair []part
	trim         bool // take white space out of the offsets
	prefixSpace  bool // but not what add_prefix_space added
}

func readPostProcessor(s section) postProcessor {
	p := postProcessor{}
	p.read(s)
	p.single, p.pair = []part{{sequence: 0}}, []part{{sequence: 0}, {sequence: 1, typeID: 1}}
	if p.template != nil && s.err == nil {
		p.single = parts(s, "single", p.template.Single, p.template.SpecialTokens)
		p.pair = parts(s, "pair", p.template.Pair, p.template.SpecialTokens)
		once(s, "single", p.single, 1)
		once(s, "pair", p.pair, 2)
	}
	return p
}

func (p *postProcessor) read(s section) {
	switch s.typ() {
	case "":
	case "TemplateProcessing":
		p.template = readTemplate(s)
	case "BertProcessing":
		p.template = clsSep(s, 1, 1)
	case "RobertaProcessing":
		p.template = clsSep(s, 0, 2)
		p.trimming(s)
	case "ByteLevel":
		p.trimming(s)
	case "Sequence":
		for i, v := range must[[]any](s, "processors") {
			values, _ := v.(map[string]any)
			p.read(section{fmt.Sprintf("%s[%d]", s.at("processors"), i), values, s.failure})
		}
	default:
		s.only("type", "TemplateProcessing", "BertProcessing", "RobertaProcessing", "ByteLevel", "Sequence")
	}
}

func (p *postProcessor) trimming(s section) {
	p.trim, p.prefixSpace = must[bool](s, "trim_offsets"), must[bool](s, "add_prefix_space")
}

// readTemplate reads a TemplateProcessing. sugarme's reader is not used: it panics on what it does not expect.
func readTemplate(s section) *processor.TemplateProcessing {
	var tokens []processor.SpecialToken
	list := section{s.at("special_tokens"), must[map[string]any](s, "special_tokens"), s.failure}
	for name := range list.values {
		t := list.child(name)
		special := processor.SpecialToken{Id: name}
		for _, id := range must[[]any](t, "ids") {
			special.Ids = append(special.Ids, int(t.id("ids", id)))
		}
		for _, token := range must[[]any](t, "tokens") {
			content, ok := token.(string)
			if !ok {
				t.fail("tokens", "got %s, want strings", show(token))
			}
			special.Tokens = append(special.Tokens, content)
		}
		tokens = append(tokens, special)
	}
	return processor.NewTemplateProcessing(pieces(s, "single"), pieces(s, "pair"), processor.NewTokensFrom(tokens))
}

// pieces reads [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}].
func pieces(s section, key string) (t processor.Template) {
	for i, v := range must[[]any](s, key) {
		values, _ := v.(map[string]any)
		at := section{fmt.Sprintf("%s[%d]", s.at(key), i), values, s.failure}
		if special := at.child("SpecialToken"); special.values != nil {
			t = append(t, processor.NewSpecialTokenPiece(must[string](special, "id"), int(special.id("type_id", special.values["type_id"]))))
			continue
		}
		sequence := at.child("Sequence")
		sequence.only("id", "A", "B")
		t = append(t, processor.NewSequencePiece(may(sequence, "id", ""), int(sequence.id("type_id", sequence.values["type_id"]))))
	}
	return t
}

// clsSep writes BertProcessing and RobertaProcessing as the templates that they are. Between two sequences
// stand several sep; the second sequence has a type of its own.
func clsSep(s section, second, between int) *processor.TemplateProcessing {
	cls, sep := special(s, "cls"), special(s, "sep")
	seps := func(n, typ int) (t processor.Template) {
		for range n {
			t = append(t, processor.NewSpecialTokenPiece(sep.Id, typ))
		}
		return t
	}
	head := processor.Template{processor.NewSpecialTokenPiece(cls.Id, 0), processor.NewSequencePiece("A", 0)}
	single := append(slices.Clone(head), seps(1, 0)...)
	pair := append(slices.Clone(head), seps(between, 0)...)
	pair = append(append(pair, processor.NewSequencePiece("B", second)), seps(1, second)...)
	return processor.NewTemplateProcessing(single, pair, processor.NewTokensFrom([]processor.SpecialToken{cls, sep}))
}

// special reads ["[SEP]", 102].
func special(s section, key string) processor.SpecialToken {
	list := must[[]any](s, key)
	if len(list) == 2 {
		if content, ok := list[0].(string); ok {
			return *processor.NewSpecialTokenFrom(content, int(s.id(key, list[1])))
		}
	}
	s.fail(key, "got %s, want a token and its id", show(s.values[key]))
	return processor.SpecialToken{}
}

// parts turns a template into what encoding needs.
func parts(s section, key string, template processor.Template, tokens *processor.Tokens) []part {
	var out []part
	for _, p := range template {
		switch p := p.(type) {
		case *processor.SequencePiece:
			checkType(s, key, p.TypeId)
			out = append(out, part{sequence: int(p.Id), typeID: p.TypeId})
		case *processor.SpecialTokenPiece:
			checkType(s, key, p.TypeId)
			t, ok := tokens.GetItemByKey(p.Id)
			if !ok || len(t.Ids) != len(t.Tokens) {
				s.fail("special_tokens", "has no %s with as many ids as tokens, which %s names", show(p.Id), key)
			}
			special := part{sequence: -1, typeID: p.TypeId, tokens: t.Tokens}
			for _, id := range t.Ids {
				special.ids = append(special.ids, s.id("special_tokens."+p.Id, float64(id)))
			}
			out = append(out, special)
		}
	}
	return out
}

// checkType checks a token type, which a byte has to hold.
func checkType(s section, key string, typeID int) {
	if typeID > math.MaxInt8 {
		s.fail(key, "got the type_id %d, want at most %d", typeID, math.MaxInt8)
	}
}

// once checks that a template has each of n sequences once and in order.
func once(s section, key string, parts []part, n int) {
	var order []int
	for _, p := range parts {
		if p.sequence >= 0 {
			order = append(order, p.sequence)
		}
	}
	if !slices.Equal(order, []int{0, 1}[:n]) {
		s.fail(key, "does not name each of its %d sequences once, in order", n)
	}
}
