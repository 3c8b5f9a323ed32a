// Writes the picture of the playground in the README: node e2e/screenshot.mjs picture.png
import { chooseTab, launch, open, response, run } from './browser.mjs';

const [path] = process.argv.slice(2);
if (!path) throw new Error('say where to write the picture');

const browser = await launch();
try {
  const { page: reader } = await open(browser, { deviceScaleFactor: 1, colorScheme: 'light' });
  await chooseTab(reader, 'Subscribe');
  await run(reader);
  await response(reader, (answer) => answer.events?.length === 1);

  const { page: writer } = await open(browser);
  await chooseTab(writer, 'Conflict');
  await run(writer);
  await response(reader, (answer) => answer.events?.length === 2);

  await reader.mouse.move(700, 790); // off the buttons, which would show their labels
  await reader.evaluate(() => document.activeElement.blur());
  await reader.evaluate(() => document.fonts.ready);
  await reader.screenshot({ path, animations: 'disabled' });
} finally {
  await browser.close();
}
