"use strict";

// Numbers as Python prints them: %.{digits}g, ties to the even digit.
function shown(value, digits = 5) {
  if (value === 0) return "0";
  let [mantissa, power] = value.toExponential(digits - 1).split("e");
  const exact = Math.abs(value).toExponential(60).split("e")[0].replace(".", "");
  if (/^50*$/.test(exact.slice(digits)) && Number(exact[digits - 1]) % 2 === 0) {
    power = value.toExponential(60).split("e")[1];
    mantissa = (value < 0 ? "-" : "") + exact[0] + "." + exact.slice(1, digits);
  }
  const exponent = Number(power);
  if (exponent < -4 || exponent >= digits) {
    const short = mantissa.includes(".") ? mantissa.replace(/\.?0+$/, "") : mantissa;
    return `${short}e${exponent < 0 ? "-" : "+"}${String(Math.abs(exponent)).padStart(2, "0")}`;
  }
  const text = Number(`${mantissa}e${exponent}`).toFixed(Math.max(digits - 1 - exponent, 0));
  return text.includes(".") ? text.replace(/\.?0+$/, "") : text;
}

// A count as people say it, to three digits: wording.in_words.
function words(value) {
  const near = Number(shown(value, 3));
  for (const [scale, name] of [[1e6, "million"], [1e9, "billion"], [1e12, "trillion"]])
    if (near >= scale && near < 1e3 * scale) return `${shown(near / scale, 3)} ${name}`;
  return near < 1e6 && Number.isInteger(near) ? near.toLocaleString("en-US") : shown(near, 3);
}

// A time as people say it: wording.span.
function span(seconds) {
  for (const [name, size, until] of [["second", 1, 60], ["minute", 60, 3600], ["hour", 3600, Infinity]])
    if (seconds < until) {
      const text = words(seconds / size);
      return `${text} ${name}${text === "1" ? "" : "s"}`;
    }
}
