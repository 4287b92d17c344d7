// Package hubtest serves folders by the Hugging Face hub's HTTP protocol, with faults on request.
//
// A [Hub] reads its repositories from root/{models,datasets}/owner/name/<revision>/…, where a revision's folder is
// named by url.PathEscape (refs%2Fconvert%2Fparquet). Its answers are those of huggingface.co as Python's
// huggingface_hub expects them, and a test holds that client against it: listings with sizes and digests, small files
// by a relative redirect, large ones by a redirect to a storage host that takes a signed URL and refuses a token.
package hubtest
