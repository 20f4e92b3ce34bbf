"""Thirty sentences each in Chinese, Japanese and Thai, written for the tests; `<LOC 北京>` marks an entity."""

import re

CHINESE = """
我在<LOC 北京>工作。
他昨天从<LOC 上海>飞到<LOC 广州>。
<PER 王芳>住在<LOC 南京>已经三年了。
<PER 李明>和<PER 张伟>都在<ORG 清华大学>读书。
我们公司去年在<LOC 深圳>开了新店。
<ORG 中国银行>的分行在<LOC 杭州>。
请告诉<PER 刘洋>明天来<LOC 天津>开会。
<LOC 成都>的火锅很有名。
<PER 陈静>给<ORG 北京大学>写了一封信。
他爸爸在<ORG 华为公司>上班。
周末我要去<LOC 西安>看<PER 赵磊>。
<LOC 武汉>下雨了,<LOC 重庆>是晴天。
<PER 周杰>2019年搬到<LOC 苏州>。
<ORG 人民医院>在<LOC 长沙>市中心。
这本书是<PER 孙丽>写的。
从<LOC 青岛>坐火车到<LOC 大连>要多久?
<PER 吴强>老师在<ORG 复旦大学>教数学。
昨晚<PER 郑敏>给我打了电话。
<ORG 新华书店>今天不开门。
<LOC 昆明>的天气比<LOC 哈尔滨>暖和得多。
听说<PER 黄涛>的妹妹在<LOC 厦门>结婚了。
<PER 徐娜>买了iPhone15给<PER 马超>。
<ORG 中国移动>在<LOC 合肥>招人。
“<LOC 拉萨>太远了!”<PER 林峰>说。
我把文件寄到<LOC 沈阳>了。
<PER 何雪>、<PER 罗勇>和<PER 梁辰>一起吃饭。
<LOC 郑州>到<LOC 洛阳>只要40分钟。
<ORG 南方航空>取消了去<LOC 三亚>的航班。
你认识<ORG 同济大学>的<PER 宋佳>吗?
今天没有人去公园。
"""
JAPANESE = """
<LOC 東京>で働いています。
<PER 山田>さんは<LOC 京都>に住む。
昨日<LOC 大阪>から<LOC 札幌>まで飛びました。
<PER 佐藤>は<ORG 東京大学>の学生です。
<LOC 東京タワー>へ行きましょう。
<ORG トヨタ自動車>の本社は<LOC 名古屋>の近くにある。
<PER 鈴木>先生が<LOC 福岡>に来ます。
<LOC 沖縄>の海はとてもきれいだ。
<PER 高橋>と<PER 田中>が結婚した。
弟は<ORG ソニー>で働いている。
<LOC 横浜>の<ORG 市民病院>に入院した。
<PER 伊藤>くん、<LOC 神戸>は遠いですか?
2020年に<LOC 仙台>へ引っ越した。
<PER 渡辺>さんの本を読んだことがある。
<ORG 日本銀行>は金利を上げた。
<LOC ロンドン>から<PER スミス>さんが来た。
<PER 中村>が<ORG 早稲田大学>を卒業した。
明日は<LOC 広島>で会議がある。
「<LOC 奈良>が好き」と<PER 小林>が言った。
<ORG 任天堂>の新しいゲームを買った。
<PER 加藤>はWi-Fiを<LOC 新潟>の家に入れた。
<LOC 金沢>は雪で、<LOC 長崎>は晴れだった。
<PER 吉田>さんに<ORG 楽天>から荷物が届いた。
<LOC 富士山>に登りたい。
<PER 松本>の妹は<LOC パリ>に留学中だ。
<ORG 京都大学>の<PER 井上>教授が受賞した。
<LOC 千葉>まで30分かかる。
<PER 木村>、<PER 清水>、<PER 林>の三人で行く。
<ORG 全日空>は<LOC 熊本>行きを欠航にした。
今日は誰も来なかった。
"""
THAI = """
ผมทำงานที่<LOC กรุงเทพ>
เขาไป<LOC เชียงใหม่>เมื่อวานนี้
<PER สมชาย>อยู่ที่<LOC ภูเก็ต>มาสามปีแล้ว
<PER มานี>กับ<PER ปิติ>เรียนที่<ORG จุฬาลงกรณ์มหาวิทยาลัย>
บริษัทเปิดร้านใหม่ใน<LOC ขอนแก่น>
<ORG ธนาคารกสิกรไทย>มีสาขาที่<LOC ระยอง>
บอก<PER วิชัย>ให้มา<LOC พัทยา>พรุ่งนี้
อาหารของ<LOC อุดรธานี>อร่อยมาก
<PER สุดา>เขียนจดหมายถึง<ORG โรงพยาบาลศิริราช>
พ่อของเธอทำงานที่<ORG การบินไทย>
เสาร์นี้จะไป<LOC อยุธยา>กับ<PER ประเสริฐ>
ฝนตกที่<LOC ตรัง> แต่<LOC ลำปาง>แดดออก
<PER นภา>ย้ายไป<LOC ชลบุรี>ปี 2562
หนังสือเล่มนี้<PER กมล>เป็นคนเขียน
นั่งรถไฟจาก<LOC หาดใหญ่>ถึง<LOC สุราษฎร์ธานี>กี่ชั่วโมง
ครู<PER อรทัย>สอนที่<ORG มหาวิทยาลัยมหิดล>
เมื่อคืน<PER ธนา>โทรมาหาฉัน
<ORG ไปรษณีย์ไทย>ปิดวันนี้
<LOC น่าน>หนาวกว่า<LOC กระบี่>มาก
น้องสาวของ<PER ชัยวัฒน์>แต่งงานที่<LOC หัวหิน>
<PER ดวงใจ>ซื้อ iPhone ให้<PER พิชัย>
<ORG ปตท>รับคนที่<LOC สงขลา>
"<LOC แม่ฮ่องสอน>ไกลเกินไป" <PER อนันต์>พูด
ส่งเอกสารไป<LOC นครพนม>แล้ว
<PER รัตนา> <PER สมพร> และ<PER วีระ>กินข้าวด้วยกัน
จาก<LOC นครปฐม>ไป<LOC ราชบุรี>ใช้เวลา40นาที
<ORG นกแอร์>ยกเลิกเที่ยวบินไป<LOC เลย>
คุณรู้จัก<PER สุภาพ>ที่<ORG ธรรมศาสตร์>ไหม
ร้านอยู่ใกล้<LOC สยาม>มาก
วันนี้ไม่มีใครไปสวน
"""
MARK = re.compile(r"<(\w+) ([^>]+)>")


def rows(marked: str) -> list[dict]:
    """Rows of texts and spans."""
    result = []
    for line in marked.strip().splitlines():
        text, spans, end = "", [], 0
        for found in MARK.finditer(line):
            text += line[end : found.start()]
            spans.append({"start": len(text), "end": len(text) + len(found[2]), "label": found[1]})
            text += found[2]
            end = found.end()
        result.append({"text": text + line[end:], "spans": spans})
    return result


LANGUAGES = {"Chinese": rows(CHINESE), "Japanese": rows(JAPANESE), "Thai": rows(THAI)}
