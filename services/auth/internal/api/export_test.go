package api

// LastWords is how a stream that was cut learns why.
var LastWords = lastWords
