// Monaco and other libraries make style elements while they run. The page's policy wants each to carry the nonce of this
// answer; few of them can be told, so elements get it where they are made. Must be imported before any library.
const { nonce } = document.querySelector('meta[property="csp-nonce"]');
const createElement = document.createElement;

document.createElement = function (name, options) {
  const element = createElement.call(this, name, options);
  if (element instanceof HTMLStyleElement) element.nonce = nonce;
  return element;
};
