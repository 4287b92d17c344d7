package tokenizer

import "strings"

// Decode turns ids back into text, as far as that goes: WordPiece forgets case, accents and white space. Ids that the
// vocabulary does not have are left out, and with skipSpecial the special tokens are too.
func (t *Tokenizer) Decode(ids []int32, skipSpecial bool) string {
	var tokens []string
	for _, id := range ids {
		if content, ok := t.content(id); ok && !(skipSpecial && t.special[content]) {
			tokens = append(tokens, content)
		}
	}
	if t.decoder == nil {
		return strings.Join(tokens, " ")
	}
	return t.decoder.Decode(tokens)
}

// content is the token of an id as it is decoded: an added token that is normalized is given normalized.
func (t *Tokenizer) content(id int32) (token string, ok bool) {
	if a := t.added[id]; a != nil {
		return a.pattern, true
	}
	token, ok = t.byID[id]
	return token, ok
}

// byteDecoder is Hugging Face's ByteLevel decoder. sugarme's turns characters outside the byte alphabet into others.
type byteDecoder struct{}

// Decode joins the tokens.
func (d byteDecoder) Decode(tokens []string) string { return strings.Join(d.DecodeChain(tokens), "") }

// DecodeChain turns the tokens into one text. A token with characters outside the alphabet stands for itself, and bytes
// that are no UTF-8 become U+FFFD.
func (byteDecoder) DecodeChain(tokens []string) []string {
	var out []byte
	for _, token := range tokens {
		if raw, ok := rawBytes(token); ok {
			out = append(out, raw...)
		} else {
			out = append(out, token...)
		}
	}
	return []string{replaceInvalid(string(out))}
}
