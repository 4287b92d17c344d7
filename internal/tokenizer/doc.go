// Package tokenizer turns text into the ids of a model's vocabulary, exactly as Hugging Face tokenizers 0.23 does with
// the same tokenizer.json: BERT's WordPiece and GPT-2's and RoBERTa's byte-level BPE.
//
// Configuration, encodings, decoders and templates are those of github.com/sugarme/tokenizer; normalization, splitting
// and the models are this package's own, because sugarme's differ from Hugging Face's on ordinary messages. Whatever a
// file asks for that is not done exactly is refused by Load, by name.
//
// There are two ways through: AppendIDs, which only makes ids and is fast, and Encode, which also tells where in the text
// each token lies. Tests and fuzzing hold them to the same ids.
//
// Text that is not valid UTF-8 is read as Python's bytes.decode(errors="replace") reads it. A Tokenizer never changes after Load, and all
// of its methods may be called from several goroutines at once.
//
//	tok, err := tokenizer.Load("tokenizer.json")
//	ids := tok.AppendIDs(nil, "Free entry!", 128) // [CLS] free entry ! [SEP]
package tokenizer
